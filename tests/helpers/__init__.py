"""What several test files share. ``tests/conftest.py`` has what writes a corpus in ReDial's form.

Fixtures that every test can ask for: ``tiny_base`` (a random base model, its folder, a writer of
prompts) and ``command_line`` (a working folder with a finished run, ``pkgllm`` in this process).
Fixtures that a file asks for by ``pytest_plugins``: ``finished_runs``, ``cohort_fixtures``.

Corpora and graphs
    ``tiny_corpus``: twelve people, forty films, and a whole configuration. ``people``: one person,
    eight films, a recommender. ``some_graphs``: graphs as hypothesis draws them. ``liked_graphs``
    and ``embedded_letters``: clients that like letters, for baselines and for embeddings.
Models
    ``tiny_decoders``: one of each type. ``tiny_ranking``: a decoder that scores a catalogue.
    ``tiny_lanes``: groups in lanes, and attention by the book.
Training
    ``tiny_groups``: groups of token ids, a policy. ``tiny_cohorts``: unequal clients and both
    engines. ``tiny_objectives``: objectives that no configuration can name. ``labelled_groups``:
    groups of which only the labels matter.
Federation
    ``one_process``: server and clients here. ``quadratic_clients``: means known by hand.
    ``noisy_rounds``: noise and whether it has its standard deviation. ``reply_lists``: strategies
    without clients. ``ray_clients_by_name``: clients in Ray's actors. ``real_federation``:
    processes that reach nothing but each other. ``superlink_state``: a SuperLink without a network.
Embeddings
    ``embedding_choices``, ``federated_letters``, and ``tiny_embeddings`` for whole runs.
Privacy
    ``planted_faults``: mechanisms that are wrong in one way each. ``private_releases``: updates of
    two clients. ``private_things``: what no message may carry.
Runs and reports
    ``run_files``: modes, and how files are read. ``finished_runs``: one run in each mode.
    ``killed_runs``: runs that die where a test says. ``answered_runs``: folders of runs without
    training. ``run_summaries``: runs in numbers. ``noisy_evaluation``: scorers that know the
    answers, blurred. ``printed``: documents as a terminal shows them.
Plug-ins
    ``plugins``: packages that add choices.
"""
