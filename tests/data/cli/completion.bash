# bash completion for bbot-agent, made by bbot-agent --print-completion bash

_bbot_agent()
{
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}

  # Bash breaks words at the equals sign.
  if [[ $cur == = ]]; then
    cur= prev+==
  elif [[ $prev == = ]]; then
    prev=${COMP_WORDS[COMP_CWORD-2]}=
  fi

  case $prev in
    --options-file|--options-file=|--ca-file|--ca-file=|--auth-key|--auth-key=|--openssl|--openssl=|--toolchain-lock|--toolchain-lock=|--qemu|--qemu=|--vnc-password|--vnc-password=|--metrics|--metrics=|--fake-machine|--fake-machine=|--fake-request|--fake-request=)
      COMPREPLY=($(compgen -f -- "$cur"))
      compopt -o filenames
      return ;;
    --resume|--resume=|--machines|--machines=|--tftp|--tftp=|--state|--state=|--run-dir|--run-dir=)
      COMPREPLY=($(compgen -d -- "$cur"))
      compopt -o filenames
      return ;;
    --check=)
      COMPREPLY=($(compgen -W 'text json' -- "$cur"))
      return ;;
    --status=)
      COMPREPLY=($(compgen -W 'text json' -- "$cur"))
      return ;;
    --print-unit|--print-unit=)
      COMPREPLY=($(compgen -W 'service once timer needrestart' -- "$cur"))
      return ;;
    --print-completion|--print-completion=)
      COMPREPLY=($(compgen -W 'bash zsh fish' -- "$cur"))
      return ;;
    --redirect|--redirect=)
      COMPREPLY=($(compgen -W 'auto nft none' -- "$cur"))
      return ;;
    --accel|--accel=)
      COMPREPLY=($(compgen -W 'kvm tcg auto' -- "$cur"))
      return ;;
    --hold|--hold=)
      COMPREPLY=($(compgen -W '0 600 forever' -- "$cur"))
      return ;;
    --interactive|--interactive=)
      COMPREPLY=($(compgen -W 'false true both' -- "$cur"))
      return ;;
    --interrupt|--interrupt=)
      COMPREPLY=($(compgen -W 'pause discard' -- "$cur"))
      return ;;
    --verbose|--verbose=)
      COMPREPLY=($(compgen -W '0 1 2 3 4 5 6' -- "$cur"))
      return ;;
    --console=|--shell|--shell=|--agent-name|--agent-name=|--poll-interval|--poll-interval=|--connect-timeout|--connect-timeout=|--request-timeout|--request-timeout=|--request-retries|--request-retries=|--proxy|--proxy=|--openssl-option|--openssl-option=|--trust|--trust=|--result-limit|--result-limit=|--result-expiry|--result-expiry=|--toolchain-name|--toolchain-name=|--toolchain-num|--toolchain-num=|--toolchain-lang|--toolchain-lang=|--toolchain-ver|--toolchain-ver=|--toolchain-id|--toolchain-id=|--instance|--instance=|--bootstrap-version|--bootstrap-version=|--min-free|--min-free=|--bridge|--bridge=|--cpu|--cpu=|--ram|--ram=|--build-ram|--build-ram=|--auxiliary-ram|--auxiliary-ram=|--vm-user|--vm-user=|--bootstrap-startup|--bootstrap-startup=|--bootstrap-timeout|--bootstrap-timeout=|--bootstrap-shutdown|--bootstrap-shutdown=|--bootstrap-retries|--bootstrap-retries=|--bootstrap-reboots|--bootstrap-reboots=|--bootstrap-auxiliary|--bootstrap-auxiliary=|--build-startup|--build-startup=|--build-timeout|--build-timeout=|--build-retries|--build-retries=|--idle-limit|--idle-limit=|--keep-failures|--keep-failures=|--keep-state=|--warm=|--warm-age|--warm-age=|--interactive-login|--interactive-login=|--interactive-vnc|--interactive-vnc=|--breaker|--breaker=|--instance-max|--instance-max=|--host-ram|--host-ram=|--host-cpu|--host-cpu=)
      return ;;
  esac

  if [[ $cur == -* ]]; then
    COMPREPLY=($(compgen -W '--once
    --no-wait
    --check --check=
    --status --status=
    --failed
    --follow
    --console --console=
    --shell
    --resume
    --gc
    --dry-run
    --dump-machines
    --dump-task
    --dump-result
    --print-unit
    --print-man
    --print-completion
    --print-licenses
    -V
    --version
    -h
    --help
    --options-file
    --agent-name
    --poll-interval
    --connect-timeout
    --request-timeout
    --request-retries
    --legacy-request
    --ca-file
    --proxy
    --auth-key
    --openssl
    --openssl-option
    --trust
    --result-limit
    --result-expiry
    --machines
    --toolchain-name
    --toolchain-num
    --toolchain-lang
    --toolchain-lock
    --toolchain-ver
    --toolchain-id
    --instance
    --bootstrap-version
    --min-free
    --tftp
    --bridge
    --redirect
    --qemu
    --accel
    --cpu
    --ram
    --auxiliary-ram
    --vm-user
    --bootstrap-startup
    --bootstrap-timeout
    --bootstrap-shutdown
    --bootstrap-retries
    --bootstrap-reboots
    --bootstrap-auxiliary
    --build-startup
    --build-timeout
    --build-retries
    --idle-limit
    --hold
    --keep-failures
    --keep-state --keep-state=
    --warm --warm=
    --warm-age
    --interactive
    --interactive-login
    --interactive-vnc
    --vnc-password
    --state
    --run-dir
    --metrics
    --interrupt
    --breaker
    --systemd-daemon
    --verbose
    --instance-max
    --host-ram
    --host-cpu
    --fake-bootstrap
    --fake-build
    --fake-machine
    --fake-request' -- "$cur"))
    [[ ${COMPREPLY[0]-} == *= ]] && compopt -o nospace
  else
    COMPREPLY=($(compgen -f -- "$cur"))
    compopt -o filenames
  fi
  return 0
}

complete -F _bbot_agent bbot-agent
