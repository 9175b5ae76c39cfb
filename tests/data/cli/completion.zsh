#compdef bbot-agent
# zsh completion for bbot-agent, made by bbot-agent --print-completion zsh

_arguments -s \
  '--once[Make one turn and exit]' \
  '--no-wait[With --once exit with 75 if another agent holds the lock]' \
  '--check=-[Examine the host, and print a remedy for each problem]::format:(text json)' \
  '--status=-[Print the state of running agents]::format:(text json)' \
  '--failed[With --status print the failed guests]' \
  '--follow[With --status print the state again when it has changed, until SIGINT or SIGTERM]' \
  '--console=-[Print the console of a running guest, and follow it until the guest has ended]::machine: ' \
  '--shell=[Run a throw-away copy of a machine with its console on the terminal]:machine: ' \
  '--resume=[Start a failed guest again where it stood]:directory:_files -/' \
  '--gc[Remove what crashed agents left behind, and exit]' \
  '--dry-run[With --gc print each path with the reason, and remove nothing]' \
  '--dump-machines[Print the headers of all machines and exit]' \
  '--dump-task[Wait for a task, print it and exit]' \
  '--dump-result[Perform one task, print its result and exit]' \
  '--print-unit=[Print a systemd unit and exit]:unit:(service once timer needrestart)' \
  '--print-man[Print the manual page and exit]' \
  '--print-completion=[Print the completion of a shell and exit]:shell:(bash zsh fish)' \
  '--print-licenses[Print the linked components and exit]' \
  '--version[Print the version and exit]' \
  '-V[Print the version and exit]' \
  '--help[Print this help and exit]' \
  '-h[Print this help and exit]' \
  '*--options-file=[Read options from <file>]:file:_files' \
  '--agent-name=[Name of the agent in requests]:name: ' \
  '--poll-interval=[Pause between turns]:time: ' \
  '--connect-timeout=[Timeout of a connection to a controller]:time: ' \
  '--request-timeout=[Timeout of a whole exchange with a controller]:time: ' \
  '--request-retries=[Further attempts to connect to a controller, a second apart]:num: ' \
  '--legacy-request[Omit what controllers of 2017 do not know]' \
  '--ca-file=[Trusted certificate authorities (PEM)]:file:_files' \
  '--proxy=[HTTP proxy for controllers, or none]:url: ' \
  '--auth-key=[RSA private key for authentication (PEM)]:file:_files' \
  '--openssl=[The openssl program]:path:_files' \
  '*--openssl-option=[Additional option for openssl]:option: ' \
  '*--trust=[Fingerprint of a trusted repository certificate]:fingerprint: ' \
  '--result-limit=[Maximum size of a result]:size: ' \
  '--result-expiry=[Time limit for the delivery of a result]:time: ' \
  '--machines=[Directory of the machine volumes, on btrfs]:dir:_files -/' \
  '--toolchain-name=[Name of the toolchain for bootstrapping]:name: ' \
  '--toolchain-num=[Number of the toolchain, 1 to 9]:num: ' \
  '--toolchain-lang=[Language of the toolchain]:lang: ' \
  '--toolchain-lock=[Lock file (flock) that is held during bootstraps]:file:_files' \
  '--toolchain-ver=[Version of the toolchain]:version: ' \
  '--toolchain-id=[Id of the toolchain, for instance a checksum]:id: ' \
  '--instance=[Number of this agent for its toolchain, 1 to 99]:num: ' \
  '*--bootstrap-version=[Version that a bootstrapped machine must report]:package=version: ' \
  '--min-free=[Minimum free space]:space: ' \
  '--tftp=[Root of the TFTP directories]:dir:_files -/' \
  '--bridge=[Bridge that the guests are attached to]:iface: ' \
  '--redirect=[Redirect of the guests'\'' TFTP requests]:how:(auto nft none)' \
  '--qemu=[The QEMU program]:path:_files' \
  '--accel=[Accelerator of the guests]:how:(kvm tcg auto)' \
  '--cpu=[Number of processors of a guest]:num: ' \
  '--ram=[Memory of a guest]:kB: ' \
  '--auxiliary-ram=[Memory of the auxiliary machines of a task together, as in --ram and besides it]:kB: ' \
  '--vm-user=[User of the QEMU processes, by name or number]:user: ' \
  '--bootstrap-startup=[Bootstrap timeout, up to the first request]:time: ' \
  '--bootstrap-timeout=[Bootstrap timeout, from there to the manifest]:time: ' \
  '--bootstrap-shutdown=[Bootstrap timeout, from there to power off]:time: ' \
  '--bootstrap-retries=[Further bootstrap attempts without a first request]:num: ' \
  '--bootstrap-reboots=[Reboots that a bootstrap allows]:num: ' \
  '--bootstrap-auxiliary=[Timeout of the auxiliary machines of a task, up to the last environment]:time: ' \
  '--build-startup=[Build timeout, up to the first request]:time: ' \
  '--build-timeout=[Build timeout, from there to the result]:time: ' \
  '--build-retries=[Further build attempts without a first request]:num: ' \
  '--idle-limit=[Time after which an idle guest is ended, before its other limits]:time: ' \
  '--hold=[Time to keep a failed guest for inspection]:time:(0 600 forever)' \
  '--keep-failures=[Number of failed guests whose evidence is kept]:num: ' \
  '--keep-state=-[Keep also the disk and the memory of failed guests, so that --resume starts them again]::size: ' \
  '*--warm=-[Start the guests of tasks from a template, made while there is no task, and not by a boot]::pattern: ' \
  '--warm-age=[Age up to which a template is used]:time: ' \
  '--interactive=[Tasks that are taken]:mode:(false true both)' \
  '--interactive-login=[The way to the guest, which controllers show to the user]:text: ' \
  '--interactive-vnc=[Address of this host for the display (VNC) of interactive guests <ip> or <ip><port>, with a port from 5900, which is the default]:address: ' \
  '--vnc-password=[File with the password of the display at --interactive-vnc, of at most 8 characters]:file:_files' \
  '--state=[Directory of persistent state]:dir:_files -/' \
  '--run-dir=[Directory of locks, sockets and status files]:dir:_files -/' \
  '--metrics=[Prometheus text file to keep up to date]:file:_files' \
  '--interrupt=[How a task of this agent makes room for one of higher priority of another agent]:how:(pause discard)' \
  '--breaker=[Host failures in a row that stop requests]:num: ' \
  '--systemd-daemon[Prefix each line with systemd'\''s priority]' \
  '--verbose=[Level of diagnostics]:level:(0 1 2 3 4 5 6)' \
  '--instance-max=[Maximum number of guests that run on this host]:num: ' \
  '--host-ram=[Memory for the guests of all agents below --run-dir]:kB: ' \
  '--host-cpu=[Processors for the guests of all agents below --run-dir]:num: ' \
  '--fake-bootstrap[Bootstrap without a guest]' \
  '--fake-build[Build without a guest]' \
  '--fake-machine=[Offer the machine whose header is in <file>]:file:_files' \
  '--fake-request=[Perform the task in <file>]:file:_files' \
  '*:controller:_files -/'
