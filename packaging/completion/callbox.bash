complete -o default -o bashdefault -C /usr/bin/callbox callbox
