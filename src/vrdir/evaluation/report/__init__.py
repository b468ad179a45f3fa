"""Parts of HTML reports: pages, charts and pictures."""
