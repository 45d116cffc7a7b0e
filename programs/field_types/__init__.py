"""Field types that write and read their own values: images, sounds, files, conversations, code, reasoning."""
