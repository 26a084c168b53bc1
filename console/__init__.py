"""The project and the shell: settings, URLs, the one API, accounts, pages, the supervisor."""
