"""Logins: how a first token is obtained while a person is present.  One flow a file.

A login is not a grant: it takes minutes, and locks no slot meanwhile.  It ends in
:meth:`TokenKeeper.adopt() <tokenadapter.TokenKeeper.adopt>`, which every process that shares the
store notices.
"""
