"""What the tests stand on: fixtures, real servers on free ports, and stands that hold one part of the engine.

Files here make no claims; each claim is a test file beside this folder.
"""
