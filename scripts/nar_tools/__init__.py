"""What stands around the plugin: text, distillation, measuring, tables and pictures. The command is ``nar VERB``."""
