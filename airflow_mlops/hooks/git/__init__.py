"""Git: remote repositories, and the working copy of a folder."""
