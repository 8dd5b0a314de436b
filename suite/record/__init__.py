"""What a run leaves in its directory, and who may write it. No torch at import.

It is all that the analysis imports of the suite. So what both have to show alike is here too: texts on a terminal
(terminal_text), without passwords (secrets), parameters in words (words), and the colours of methods (method_colours).
"""
