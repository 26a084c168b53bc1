"""Evidence: Merkle proofs, evidence packs, and the two verifiers that check them."""
