"""What requests and answers mean, for every client alike."""
