"""The agent: what runs on every managed device.

journal   what the device must remember of its deployments, in one small SQLite file
deployer  carries out what the deployment machine decides: fetch, verify, install, report
guarded   this process, where a guard can replace it by a newer version
agent     a fleet member with a deployer, wired
main      the program ``p2pdist-agent``
"""
