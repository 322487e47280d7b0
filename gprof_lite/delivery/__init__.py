"""From a finished profile to the server: spool on disk, uploader thread, one sink per wire protocol."""
