"""What each `davfs` command does, one module each; cli.py only reads the command line and picks one."""
