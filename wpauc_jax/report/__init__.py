"""What a finished run shows to people: one HTML page, made of the files of its work directory.

Pages, their blocks and their drawings belong here. Nothing is trained, searched or measured anew: what the files do not
hold is told as missing.
"""
