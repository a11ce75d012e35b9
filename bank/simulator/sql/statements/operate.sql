CALL operate($1::json)
