"""What is shown and handed on: card, preview, report, Hub."""
