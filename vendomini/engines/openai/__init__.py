"""A server that speaks OpenAI's API, as an engine."""
