"""The papers' tables as commands: rows, made of jobs that are kept once and shared, evaluated and put beside theirs."""
