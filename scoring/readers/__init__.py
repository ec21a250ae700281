"""Tables in the formats that people have, as rows of cells."""
