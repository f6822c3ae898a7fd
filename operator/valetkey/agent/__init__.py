"""What an agent imports; nothing else of ours."""
