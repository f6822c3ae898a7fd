"""Put it where the pod can read it; take it away."""
