"""The operator's command line, ``p2pdist``: a client of the admin server's HTTP API and nothing else.

profile   which server, which token, which authority: options, environment, profile file
client    the HTTP API as typed calls; problems become errors of the project
output    tables for people, JSON for programs
words     sizes, times and names as people read them
publishing
          a publication directory on its way to the server
fleet, content, rollout, overview
          the commands, by subject
main      the program

Whatever comes from a device (names, reasons, installers' output) is shown without its control characters.
"""
