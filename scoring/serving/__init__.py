"""Serves decisions over HTTP: typed questions in, a probability for every option out.

`decisions` and `systemone` read and write the bodies of the two interfaces; both become an `AskedRequest` (`request`),
whose texts and pictures `content` puts together for the model.
"""
