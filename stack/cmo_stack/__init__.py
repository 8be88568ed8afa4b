"""The whole stack on one machine: its servers, the demo, and the `cmo` command."""
