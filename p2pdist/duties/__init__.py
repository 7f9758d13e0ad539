"""What a distribution point does besides seeding: work that the admin server assigns it, where it stands."""
