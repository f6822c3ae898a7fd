"""A cluster for tests, demo and people: the given one, kind, or Kubernetes built from its Go modules."""
