"""Tests of Wherry; the directories below mirror ``src/wherry``."""
