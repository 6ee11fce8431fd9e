"""How a task is tried: records, engines, the conversation loop, tools."""
