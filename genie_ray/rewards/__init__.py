"""The reward service: judges of play behind Ray Serve, and the clients that ask them.

config.py    which reward, and what the service may use
windows.py   what a judge is asked: windows cut out of fragments
judges.py    the rewards; learned.py: those that learn; novelty.py: the factor for novelty
state.py     what they remember; memory.py: with an explorer's checkpoints
replica.py   one process of the service; batches.py: its batches over all callers
service.py   starting it, swapping weights; client.py: asking it
serving.py   the same for programs outside the cluster; http.py: its paths; wire.py: its format
"""
