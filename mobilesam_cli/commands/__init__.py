"""One module a command, named after it: parse, call one workflow, show the result."""
