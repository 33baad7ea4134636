"""Parts that several benches share: traffic, senders, boards, pages."""
