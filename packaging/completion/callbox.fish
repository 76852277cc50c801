# The program itself answers how a line may go on.
function __callbox_complete
	set -lx COMP_LINE (commandline -cp)
	test -z (commandline -ct); and set COMP_LINE "$COMP_LINE "
	/usr/bin/callbox
end
complete -c callbox -f -a "(__callbox_complete)"
