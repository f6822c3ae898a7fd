"""What answers over the network beside the operator; it writes nothing and hands nothing out."""
