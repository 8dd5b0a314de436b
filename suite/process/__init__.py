"""Which process this is among those that run one stage, and how it is asked to stop."""
