"""Plain scripts of the `openai` client, as written, with `@program`, and by hand with `asyncio.gather`."""
