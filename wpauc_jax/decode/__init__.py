"""From prompts to items.

Here are search, sampling, exact scores and groups; rewards and losses are not known here."""
