"""Cards, pages, the bundled priors and the Hugging Face Hub."""
