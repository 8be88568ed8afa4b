"""What the compiled rules read, how true their 30-day result is and how soon they page, beside others."""
