"""The loop: it moves any configuration by any rule until each replica is absorbed or done, and knows no particle."""
