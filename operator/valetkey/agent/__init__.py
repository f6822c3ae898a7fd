"""What an agent imports; nothing else of ours.

access      ask, use, leave: what `valetkey.access` is
tool        the same for one call of a function
life        what becomes of one access, from asking to its end
following   every version of one request, whatever breaks in between
answer      what a request says: granted, waiting for people, over
sealed      open what was delivered to this process alone
entries     what a process leaves behind for the next one, if it dies
run         `valetkey run`, for programs that know nothing of it
sidecar     `valetkey sidecar`, for pods whose program cannot be started by it
"""
