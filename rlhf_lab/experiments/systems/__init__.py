"""The systems that the lecture names, each in the kit: what its paper claims, measured on the embedded world.

A module here is one claim: `rows(job)` measures it for one seed, `figures(rows)` draws the rows of all seeds, and the
template of the same name says in words what came out. `command` runs them, `sections` puts them on the results page.
"""
