"""On record: what is done and why, written before and after; and read again."""
