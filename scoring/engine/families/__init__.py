"""The families of models inside the engine: where a network keeps its parts, and how it sees a picture.

`registry.parts_of` finds the file of a loaded network's family; the half that needs no torch is
`scoring.inputs.families`.
"""
