"""The flow: kopf's events in, one key at a time through one pure decision, effects out."""
