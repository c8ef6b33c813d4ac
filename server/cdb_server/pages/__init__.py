"""The web interface: server-side HTML pages without JavaScript; rules stay in the repository.

A page is a template, filled in a thread with what the repository answers. It holds no rule: what applies, and why, is
for the repository to say.
"""
