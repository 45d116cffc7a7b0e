"""OpenCL as a target: loop nests as OpenCL C, compiled and run by whatever driver this machine has.

What holds here: making the text needs no OpenCL; running it does. A driver is first tried in a process of its own.
"""
