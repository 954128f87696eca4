"""The platform's processes: each says what runs, with which rights, and what it reaches."""
