"""The families of models, as far as no torch is needed: tokens, pictures, names, sizes and limits; `registry` has all.

Their other half is `scoring.engine.families`: where a network keeps its parts, and how it sees a picture.
"""
