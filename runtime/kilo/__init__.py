"""What runs on the platform, and the SDK that services import."""
