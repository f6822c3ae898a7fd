"""Who may get what: pure, from a request, the policies and the facts to one decision."""
