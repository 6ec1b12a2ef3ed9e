"""The reward service: judges of play behind Ray Serve, and the clients that query them.

config.py      which reward, and the service's resources
windows.py     a judge's input: windows cut from fragments
judges.py      the rewards; learned.py: those that learn; novelty.py: the novelty factor
state.py       saving and restoring what judges remember; memory.py: together with an explorer's checkpoints
replica.py     one process of the service; batches.py: its batches across callers
service.py     starting it, swapping weights; deployment.py: its Serve deployment; client.py: querying it
http/          the same for programs outside the cluster
"""
